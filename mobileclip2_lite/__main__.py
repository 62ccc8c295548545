"""`python -m mobileclip2_lite STAGE …` is `mobileclip2-lite STAGE …`."""

from mobileclip2_lite.cli import main

if __name__ == "__main__":
    main()

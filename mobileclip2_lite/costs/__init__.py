"""What models and full runs cost: FLOPs, latency, bytes, hours, money."""

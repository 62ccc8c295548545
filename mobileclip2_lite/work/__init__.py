"""The ground under every stage: seeded chance, files without loss, finished work found, shards made one by one."""

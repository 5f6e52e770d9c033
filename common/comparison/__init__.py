"""What compare.py alone needs: runs.py makes one training, pools.py many at a time, here or on a Ray
cluster, and statistics.py has the numbers, the picture and the tables."""

"""What compare.py alone needs: runs.py makes trainings, each a process of its own, cluster.py makes
them on a Ray cluster, statistics.py has the numbers and the tables, picture.py the curves."""

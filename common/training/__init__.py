"""What stands around the two loops: training.py and testing.py; evaluation.py plays greedily
between episodes, checkpoint.py saves a training whole, progress.py says how far it is; screen.py
has its progress bar, curve.py its picture, board.py its curves for TensorBoard."""

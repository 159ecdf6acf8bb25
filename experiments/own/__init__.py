"""Parts of `experiments.train_your_own`."""

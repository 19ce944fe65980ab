"""mixgan: mixing of samples and labels as one idea, for classifiers, for GANs, and for looking inside both."""

__version__ = "0.2.0"

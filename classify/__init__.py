"""Classifiers trained with mixing methods: data sets, networks, training methods, and the loop."""

"""How good generated images are: feature networks, Frechet and kernel distances, and metrics of registered pairs."""

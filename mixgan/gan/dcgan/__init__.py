"""DCGAN: images from noise, its discriminator trained on mixtures of real and generated images."""

"""GANs trained on mixed samples: networks, losses, image pool, the MixCycleGAN step and its loop."""

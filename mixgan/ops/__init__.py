"""Batched image operations on the images' device, shared by mixing, training and evaluation; only here is Kornia used.

transforms.py (value ranges, normalisation, resize, crops), filters.py (blur, box sums, SSIM, PSNR), augment.py (PIL-like
augmentations, one parameter per image), corruptions.py (the 15 corruptions of CIFAR-10-C).
"""

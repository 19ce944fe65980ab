"""Images on disk, Google Maps, the embedded tiles, and downloading with verification."""

"""Networks that make feature maps of whole pictures, and their weights; encoders make regions of the maps."""

"""EfficientNet-Lite0 tuned to dogs and wolves: what `experiments.fine_tuned` is made of.

pictures    silhouettes with fur on textures, in colour, 96 pixels to a side
network     the part of the network that is kept, and the part that is trained
recipes     the ways of training that are compared, and how they are judged
"""

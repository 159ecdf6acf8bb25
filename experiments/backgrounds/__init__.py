"""Pictures whose background tells the class: what `experiments.dogs_and_wolves` is made of.

animals     silhouettes, fetched, checked, without duplicates, in clusters of near twins
pictures    silhouettes on textures: training, validation and the four groups of the test
"""

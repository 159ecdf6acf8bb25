"""Pictures from which regions are taken, most relevant first (Samek et al. 2015).

subjects     networks, the pictures they are asked about, and what a region is replaced by
curves       how far an answer falls, and how large the heatmaps are
"""

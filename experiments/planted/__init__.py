"""Sentences with a planted word: what `experiments.planted_word` is made of.

grammar     the sentences, their classes, where the evidence stands, and the planted word
network     a small transformer, apart into looking words up and reading them
recipes     the ways of training that are compared
judge       what a network does, on the test and on validation sentences
"""

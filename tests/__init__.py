"""Tests of jaxrel, and the models they run on."""

"""Tests of execute."""

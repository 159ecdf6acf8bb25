"""Tests of programs drawn at random."""

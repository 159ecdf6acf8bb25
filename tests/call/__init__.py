"""Tests of call."""

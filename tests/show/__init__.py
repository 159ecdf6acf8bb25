"""Tests of _show."""

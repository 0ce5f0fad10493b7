"""Tests, named after behaviour. Expected values come from elsewhere than the code under test."""

"""Tests, named after behavior. Expected values come from elsewhere than the code under test."""

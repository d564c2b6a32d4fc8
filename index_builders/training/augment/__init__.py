"""Augmentation: the views of photographs that training compares."""

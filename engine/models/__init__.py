"""Weights: finding, fetching, checking and holding them. Everything here may import torch, inside its functions first."""

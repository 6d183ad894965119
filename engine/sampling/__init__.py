"""Maths on tensors: schedules, samplers, noise, guidance. No weights, no files.

Knows nothing of UNets: a sampler asks for the denoised estimate of ``(x, sigma)`` and somebody else makes it.
"""

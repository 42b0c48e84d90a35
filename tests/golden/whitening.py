"""Global contrast normalisation and ZCA whitening in NumPy, by pylearn2's formulas and constants: the
reference that data/whitening.cpp is compared with.
"""
import numpy as np

SCALE, LEAST_DIVISOR, BIAS = 55, 1e-8, 0.1


def normalise(images):
    """uint8 [n, ...] -> float64 [n, values], each image with the mean 0 and the norm 55."""
    x = images.reshape(len(images), -1).astype(np.float64)
    x -= x.mean(1, keepdims=True)
    divisor = np.sqrt((x**2).sum(1, keepdims=True)) / SCALE
    divisor[divisor < LEAST_DIVISOR] = 1
    return x / divisor


class Whitening:
    """Fitted on images; to be called with images of the same shape."""

    def __init__(self, images, chunk=5000):
        chunks = [slice(start, start + chunk) for start in range(0, len(images), chunk)]
        self.mean = sum(normalise(images[part]).sum(0) for part in chunks) / len(images)
        covariance = 0
        for part in chunks:
            x = normalise(images[part]) - self.mean
            covariance += x.T @ x / len(images)
        eigenvalues, vectors = np.linalg.eigh(covariance)
        self.matrix = vectors / np.sqrt(np.maximum(eigenvalues, 0) + BIAS) @ vectors.T

    def __call__(self, images, chunk=5000):
        """-> float32, in the images' shape."""
        return np.concatenate([
            ((normalise(part) - self.mean) @ self.matrix).astype(np.float32).reshape(part.shape)
            for part in (images[start:start + chunk] for start in range(0, len(images), chunk))])

"""The declarations, one module per lesson, in the order of the course."""

LESSONS = (
    "linear", "activations", "losses", "backprop", "initialisation", "optimisers", "regularisation", "normalisation",
    "convolution", "pooling", "cnn", "residual", "efficient_convolution", "upsampling",
)  # fmt: skip

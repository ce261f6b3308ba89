"""The declarations, one module per lesson, in the order of the course."""

LESSONS = (
    "linear", "activations", "losses", "backprop", "initialisation", "optimisers", "regularisation", "normalisation",
    "convolution", "pooling", "cnn", "residual", "efficient_convolution", "upsampling",
    "embedding", "rnn", "lstm_gru", "attention", "transformer", "efficient_attention",
)  # fmt: skip

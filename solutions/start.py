# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Layer by Layer
#
# Every layer of a neural network, built three times: by hand in NumPy with its gradient, in PyTorch, and as a
# picture you can move. Each lesson is one notebook. You need Python with a little NumPy, what a matrix product is, and
# the chain rule; everything else is derived where it is used.

# %% [markdown]
# ## Is this computer ready?
#
# Click into the next cell and press Shift and Enter.

# %%
from autograder.start import course_map, environment

environment()

# %% [markdown]
# ## The lessons at hand
#
# The next cell reads the notebooks beside this page: what each asks for, how long a prepared reader needs, and which of
# your checks had all points when you last saved. Run it again whenever you come back.

# %%
course_map()

# %% [markdown]
# ## How checking works
#
# 1. Under each exercise stands a cell such as `check(linear_forward)`: it calls your function with fresh random inputs,
#    compares every output with PyTorch's, and says which one differs, where, and what to look at next.
# 2. Gradients are compared with PyTorch's automatic differentiation under a random upstream gradient, so no lucky
#    constant passes.
# 3. Each right output earns its share of the points, and you can check as often as you like. A report ends with
#    `Again: examine(…, seed=…)`: that draws the same inputs once more, and the result's `.wrong.inputs` are the arguments
#    your function got.
# 4. Hints unfold one inside the other, from a nudge to almost the answer.
# 5. Grading runs the same checks on your saved notebook with inputs of its own; it runs your exercise cells, the cells
#    you add and the course's imports, and nothing else.
#
# The same verdict on a whole notebook, in a terminal: `autograder check 01_linear/01_linear.ipynb`.

# %% [markdown]
# ## The map
#
# Thirty-five lessons in six parts; those with a link are ready. The order is a recommendation: each lesson says in its
# first lines what it needs.
#
# **Part 1: layers and gradients**
#
# 1. [Linear](01_linear/01_linear.ipynb): weights, bias, shapes, and the two gradients everything else is made of
# 2. [Activations](02_activations/02_activations.ipynb): why depth needs bends; saturation, dead units, softmax
# 3. [Losses](03_losses/03_losses.ipynb): output layers and the loss that belongs to each
# 4. [Backprop](04_backprop/04_backprop.ipynb): the chain rule layer by layer; an automatic differentiator of your own
# 5. [Initialisation](05_initialisation/05_initialisation.ipynb): how signals and gradients survive depth
# 6. [Optimisers](06_optimisers/06_optimisers.ipynb): from gradient descent to AdamW, and schedules
# 7. [Regularisation](07_regularisation/07_regularisation.ipynb): dropout, weight decay, augmentation
# 8. [Normalisation](08_normalisation/08_normalisation.ipynb): batch, layer, group and RMS
#
# **Part 2: vision and the feature hierarchy**
#
# 9. [Convolution](09_convolution/09_convolution.ipynb): locality and shared weights
# 10. [Pooling](10_pooling/10_pooling.ipynb): invariance and receptive fields
# 11. [CNN](11_cnn/11_cnn.ipynb): trained from scratch, then taken apart
# 12. [Residual](12_residual/12_residual.ipynb): skip connections and gradient flow at depth
# 13. [Efficient convolution](13_efficient_convolution/13_efficient_convolution.ipynb): separable, inverted, squeezed
# 14. [Upsampling](14_upsampling/14_upsampling.ipynb): transposed convolution, U-Net, segmentation
#
# **Part 3: sequences**
#
# 15. [Embedding](15_embedding/15_embedding.ipynb): lookup and its scattered gradient
# 16. [RNN](16_rnn/16_rnn.ipynb): state, unrolling, backpropagation through time
# 17. [LSTM and GRU](17_lstm_gru/17_lstm_gru.ipynb): gates and memory
# 18. [Attention](18_attention/18_attention.ipynb): queries, keys, values, masks and heads
# 19. [Transformer](19_transformer/19_transformer.ipynb): positions and blocks; GPT, BERT, ViT
# 20. [Efficient attention](20_efficient_attention/20_efficient_attention.ipynb): local, linear, cached, and exact in blocks
#
# **Part 4: representations and generation**
#
# 21. Autoencoder: bottleneck, denoising, variational
# 22. GAN: two networks against each other
# 23. Self-supervised learning: SimCLR, masked modelling, CLIP
# 24. Transfer: freezing, fine-tuning, LoRA
#
# **Part 5: understanding, hardening and shrinking layers**
#
# 25. Interpretability: Grad-CAM, integrated gradients, probes
# 26. Robustness: adversarial examples and training against them
# 27. Compression: pruning, quantisation, distillation
# 28. Dynamic computation: mixture of experts, early exit
# 29. Learning on: EWC, federated averaging, MAML
#
# **Part 6: beyond**
#
# 30. Capsules
# 31. Policy: REINFORCE, actor-critic, noisy layers
# 32. Architecture search: DARTS, FLOPs, scaling laws
# 33. Spiking and quantum: surrogate gradients, parameter shift
# 34. Hybrids: video, speech, several kinds of input at once
# 35. Capstone: your own framework against PyTorch

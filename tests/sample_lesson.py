# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 98 · Sample
#
# As short as a lesson can be.

# %% setup=true
import sample  # noqa: F401  (registers the exercises below)

from autograder import check

# %% [markdown] about="double_forward"
# ### Double
#
# Twice as much: [1, 2] becomes [2, 4].


# %% exercise="double_forward"
def double_forward(x):
    """x (n,) -> y (n,)"""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %% check="double_forward"
check(double_forward)

# %% [markdown] about="double_backward"
# ### Its gradient


# %% exercise="double_backward"
def double_backward(dy, x):
    """dy (n,), x (n,) -> dx (n,)"""
    ### BEGIN SOLUTION
    return 2 * dy
    ### END SOLUTION


# %% check="double_backward"
check(double_backward)

# %% [markdown] about="repair_triple"
# ### Repair


# %% exercise="repair_triple"
def repair_triple(x):
    """x (n,) -> y (n,)"""
    ### BEGIN SOLUTION
    return 3 * x
    ### BROKEN
    # for _ in range(2):
    #     x = x + x  # one too many
    #
    # return x
    ### END SOLUTION


# %% check="repair_triple"
check(repair_triple)

# %% tags=["nbval-check-output"]
print(f"{double_forward(21)}")


# %%
class Slider:
    def _repr_mimebundle_(self, **_):
        view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}}
        return view | {"text/html": "<b>a static picture</b>", "text/plain": "Slider"}


Slider()

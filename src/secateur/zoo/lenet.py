"""LeNet-300-100 and LeNet-5 for MNIST, and a convolutional net for scikit-learn's 8x8 digits.

All are plain `nn.Sequential`s with named layers: `nn.Flatten` instead of a hard-wired view, so that channels can be
removed physically, and names (`conv1.weight`, `fc1.weight`) that a recipe's `where:` can name.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from secateur.zoo.resnet import narrow


def lenet300(width: float = 1.0) -> nn.Sequential:
    """LeNet-300-100: 784-300-100-10 with ReLU. Input float32 [N, 1, 28, 28]; 266,200 weights, 410 biases at width 1.

    Reference: LeCun et al., Proc. IEEE 86(11), 1998, sec. III.
    """
    wide, slim = (_units(n, width) for n in (300, 100))
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(784, wide),
            relu1=nn.ReLU(),
            fc2=nn.Linear(wide, slim),
            relu2=nn.ReLU(),
            fc3=nn.Linear(slim, 10),
        )
    )


def lenet5(conv_relu: bool = True, width: float = 1.0) -> nn.Sequential:
    """LeNet-5 in Caffe's sizes: conv 20x1x5x5, pool, conv 50x20x5x5, pool, fc 800x500, ReLU, fc 500x10.

    Input float32 [N, 1, 28, 28]; 500 + 25,000 + 400,000 + 5,000 = 430,500 weights and 580 biases, the count that
    the pruning literature reports. Caffe's own file has a ReLU after the first fully connected layer only;
    `conv_relu` adds one after each convolution, as the networks trained in PyTorch by the papers compared with do.
    It changes no weight count; `conv_relu=False` gives Caffe's net to the letter. `width` other than 1 gives the narrow
    dense nets that pruned ones are compared with.

    Reference: LeCun et al. 1998; Caffe, examples/mnist/lenet.prototxt.
    """
    first, second, hidden = (_units(n, width) for n in (20, 50, 500))
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(1, first, 5))
    if conv_relu:
        layers["relu1"] = nn.ReLU()
    layers["pool1"] = nn.MaxPool2d(2)
    layers["conv2"] = nn.Conv2d(first, second, 5)
    if conv_relu:
        layers["relu2"] = nn.ReLU()
    layers["pool2"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(16 * second, hidden)
    layers["relu3"] = nn.ReLU()
    layers["fc2"] = nn.Linear(hidden, 10)
    return nn.Sequential(layers)


def _units(n: int, width: float) -> int:
    return n if width == 1.0 else narrow(n, width)


def digits_cnn() -> nn.Sequential:
    """Three convolutions and two linear layers for 8x8 digits: input float32 [N, 1, 8, 8], 159,264 weights.

    288 + 18,432 + 73,728 + 65,536 + 1,280 weights and 362 biases, 2.4 million multiply-adds an image: large enough
    that sparsity, and not call overhead, decides how fast it runs.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(64, 128, 3, padding=1),
            relu3=nn.ReLU(),
            pool3=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(512, 128),
            relu4=nn.ReLU(),
            fc2=nn.Linear(128, 10),
        )
    )

"""ResNet-50, the convolutional row of Table 7, from torchvision."""

from torch import nn
from torchvision.models import ResNet
from torchvision.models import resnet50 as torchvision_resnet50


def resnet50(num_classes: int = 1000, in_chans: int = 3) -> ResNet:
    """A ResNet-50 with fresh weights (25,557,032 parameters by default) for images of `in_chans` channels."""
    model = torchvision_resnet50(weights=None, num_classes=num_classes)
    if in_chans != 3:
        model.conv1 = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model

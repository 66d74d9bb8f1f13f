"""From a trained network to files that others run: MONAI bundle, torch.export, ONNX, TorchScript."""

"""A tiny open_clip model on disk, its weights random, loaded as a user's would be."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that open_clip loads as `local-dir:`."""
    from gapbridge.train.contrastive import Architecture, build_model, save_model
    from gapbridge.train.tokens import train_tokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = train_tokenizer(["a red circle and a blue ring"] * 3, 300, chat=False)
    architecture = Architecture(32, 32, 12, len(tokenizer), 70.0)
    save_model(folder, build_model(architecture), tokenizer, architecture)
    return folder

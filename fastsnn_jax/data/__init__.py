"""Data to train on: images as uint8 arrays, text as tokens."""

from fastsnn_jax.data.corpus import Corpus, load_corpus
from fastsnn_jax.data.crops import Windows, random_crops, windows
from fastsnn_jax.data.dataset import DataError, Dataset, Examples, split_validation
from fastsnn_jax.data.digits import load_digits
from fastsnn_jax.data.idx import read_idx
from fastsnn_jax.data.images import load_images
from fastsnn_jax.data.mnist import load_mnist
from fastsnn_jax.data.subwords import SubwordTokenizer
from fastsnn_jax.data.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    byte_tokenizer,
    char_tokenizer,
    load_tokenizer,
    tokenizer_from_json,
)

__all__ = [
    "ByteTokenizer", "CharTokenizer", "Corpus", "DataError", "Dataset", "Examples",
    "SubwordTokenizer", "Tokenizer", "Windows", "byte_tokenizer", "char_tokenizer", "load_corpus",
    "load_digits", "load_images", "load_mnist", "load_tokenizer", "random_crops", "read_idx",
    "split_validation", "tokenizer_from_json", "windows",
]

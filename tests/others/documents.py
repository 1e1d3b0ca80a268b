"""Prints the documents of YAML files as one list of JSON. GitLab's `!reference [a, b]` becomes `{"!reference": ["a", "b"]}`."""

import json
import sys

import yaml


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!reference", lambda loader, node: {"!reference": loader.construct_sequence(node)})

documents = []
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        documents += yaml.load_all(file, Loader)
json.dump(documents, sys.stdout)

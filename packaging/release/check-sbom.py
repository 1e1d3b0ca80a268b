"""Checks a bill of materials against the schema of CycloneDX: check-sbom.py FILE. Needs the Python packages of requirements.txt."""

import json
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = Path(sys.argv[1]).read_text()
if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
    sys.exit(f"check-sbom: {sys.argv[1]}: {error}")
document = json.loads(text)
known = {one["bom-ref"] for one in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
named = {name for one in document["dependencies"] for name in (one["ref"], *one["dependsOn"])}
if known != named:
    sys.exit(f"check-sbom: components and dependencies disagree about {sorted(known ^ named)}")
print(f"{len(document['components'])} components")

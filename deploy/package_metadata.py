"""Links of the package's page: whoever builds a release names the repository in TOKGATE_REPOSITORY."""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).parents[1]


class PackageMetadata(MetadataHookInterface):
    """README.md with links that lead somewhere outside of the repository, and the project's addresses."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Without the variable, as in a clone, links stay as they are and no address is given."""
        readme = (ROOT / "README.md").read_text("utf-8")
        if home := os.environ.get("TOKGATE_REPOSITORY"):
            at = f"{home}/blob/v{metadata['version']}/"
            readme = re.sub(r"(\]\()(?![a-z]+:|#)", rf"\g<1>{at}", readme)
            readme = re.sub(r'((?:src|srcset)=")(?![a-z]+:)', rf"\g<1>{home}/raw/v{metadata['version']}/", readme)
            metadata["urls"] = {
                "Repository": home,
                "Documentation": f"{at}docs/readers/admin.md",
                "Changelog": f"{at}CHANGELOG.md",
                "Security": f"{at}SECURITY.md",
                "Issues": f"{home}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}

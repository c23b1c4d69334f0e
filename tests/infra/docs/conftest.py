import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The servers are those of the tests of the stacks.
sys.path.insert(0, str(HERE.parent / "cloudformation"))
# What a shell of this machine has set must not reach a command of the page.
for name in list(os.environ):
    if name.startswith(("AWS_", "OFFRAMP_", "HELM_", "KUBECONFIG")):
        del os.environ[name]

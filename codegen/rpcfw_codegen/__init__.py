"""The generator behind `rpcfw gen` and `rpcfw check`: stubs and skeletons from interfaces, and what breaks between two.

Reads `rpcfw.interface` and `rpcfw.errors` only, so that it works on any interface without a running server.
"""

from rpcfw_codegen.errors import CodegenError
from rpcfw_codegen.files import StaleFile, stale, write
from rpcfw_codegen.generate import DEFAULT_WIDTH, GeneratedFile, generate
from rpcfw_codegen.versions import Finding, Report, check, schema_document, schemas_of

__all__ = [
    "DEFAULT_WIDTH",
    "CodegenError",
    "Finding",
    "GeneratedFile",
    "Report",
    "StaleFile",
    "check",
    "generate",
    "schema_document",
    "schemas_of",
    "stale",
    "write",
]

"""Decoders of the compressed transfer syntaxes of DICOM."""

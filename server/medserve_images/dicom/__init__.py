"""Reads DICOM files; needs pydicom, which comes with the extra `dicom`."""

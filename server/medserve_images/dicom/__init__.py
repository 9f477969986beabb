"""Decodes DICOM files; requires pydicom, which the extra `dicom` installs."""

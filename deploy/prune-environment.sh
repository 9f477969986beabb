#!/bin/sh
# prune-environment.sh FOLDER: removes what the server never imports from a virtual environment and compiles the rest.
set -eu
cd "$1"
packages=$(echo lib/python3.*/site-packages)

# Package installers.
rm -rf bin/pip* bin/[Aa]ctivate* "$packages"/pip "$packages"/pip-* "$packages"/setuptools "$packages"/setuptools-* \
  "$packages"/pkg_resources "$packages"/_distutils_hack "$packages"/distutils-precedence.pth

# Tools of libraries; of the commands, only medserve's are kept.
find bin -mindepth 1 ! -name 'python*' ! -name medserve ! -name medserve-server -delete
rm -rf "$packages"/numpy/f2py "$packages"/numpy/distutils "$packages"/onnxruntime/transformers \
  "$packages"/onnxruntime/quantization "$packages"/onnxruntime/tools "$packages"/onnxruntime/datasets

# A second copy of ONNX Runtime, for C programs; the Python extension module contains the library.
rm -f "$packages"/onnxruntime/capi/libonnxruntime.so.*

# Example files.
rm -rf "$packages"/pydicom/data/test_files "$packages"/pydicom/data/charset_files

# Syntax highlighting in rich, which is not used.
rm -rf "$packages"/pygments/lexers

# Decoders for formats that the server refuses, and text rendering.
rm -f "$packages"/PIL/_avif.* "$packages"/PIL/_imagingft.* "$packages"/pillow.libs/libavif-* \
  "$packages"/pillow.libs/libfreetype-* "$packages"/pillow.libs/libharfbuzz-*

find "$packages" -type d -name tests -prune -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.a' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyx' \) -delete

# Compiled now, since the root filesystem may be read-only: otherwise, every start would compile, and the health check
# starts a process every 10 s.
bin/python -m compileall -q -j 0 "$packages"
chmod -R a+rX .

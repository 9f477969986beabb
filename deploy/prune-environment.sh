#!/bin/sh
# prune-environment.sh FOLDER: takes out of a virtual environment what serving never imports, and compiles the rest.
set -eu
cd "$1"
packages=$(echo lib/python3.*/site-packages)

# What installs packages.
rm -rf bin/pip* bin/[Aa]ctivate* "$packages"/pip "$packages"/pip-* "$packages"/setuptools "$packages"/setuptools-* \
  "$packages"/pkg_resources "$packages"/_distutils_hack "$packages"/distutils-precedence.pth

# Tools that come with libraries; of the commands only ours stay.
find bin -mindepth 1 ! -name 'python*' ! -name medserve ! -name medserve-server -delete
rm -rf "$packages"/numpy/f2py "$packages"/numpy/distutils "$packages"/onnxruntime/transformers \
  "$packages"/onnxruntime/quantization "$packages"/onnxruntime/tools "$packages"/onnxruntime/datasets

# ONNX Runtime twice: this one is for C programs, Python's own binding holds all of it.
rm -f "$packages"/onnxruntime/capi/libonnxruntime.so.*

# Example files.
rm -rf "$packages"/pydicom/data/test_files "$packages"/pydicom/data/charset_files

# rich colours source code with it; nothing here shows any.
rm -rf "$packages"/pygments/lexers

# Decoders of formats that the server refuses, and drawing of text.
rm -f "$packages"/PIL/_avif.* "$packages"/PIL/_imagingft.* "$packages"/pillow.libs/libavif-* \
  "$packages"/pillow.libs/libfreetype-* "$packages"/pillow.libs/libharfbuzz-*

find "$packages" -type d -name tests -prune -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.a' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyx' \) -delete

# The root filesystem may be read-only: compiled now or at every start, and the health check starts every 10 s.
bin/python -m compileall -q -j 0 "$packages"
chmod -R a+rX .

"""`laboratory`, a small server with a model that segments."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1 import manifest_pb2 as manifest_pb
from medserve_proto.v1 import model_catalog_pb2 as catalog_pb
from medserve_proto.v1.image_segmentation_pb2_grpc import (
    ImageSegmentationServicer,
    add_ImageSegmentationServicer_to_server,
)
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogServicer, add_ModelCatalogServicer_to_server
from servers.small_server import Serve

MANIFEST = manifest_pb.Manifest(
    schema_version=1,
    name="cells",
    title="Cells in test pictures",
    image_segmentation=manifest_pb.ImageSegmentationTask(
        input=manifest_pb.SegmentationInput(
            color_space=manifest_pb.COLOR_SPACE_RGB, stride=8, tiling=manifest_pb.Tiling(max_side=16, margin=4)
        ),
        labels=[
            manifest_pb.SegmentedLabel(
                name="=nucleus/1",
                threshold=0.5,
                marker_distance=0.4,
                min_area_px=3,
                chosen_on="validation",
                count_error=manifest_pb.CountError(low_ratio=0.875, high_ratio=1.25, coverage=0.9),
            ),
            manifest_pb.SegmentedLabel(
                name="cell",
                threshold=0.25,
                largest_only=True,
                measures=[
                    manifest_pb.Measure(
                        name="cell circumference",
                        kind=manifest_pb.Measure.KIND_ELLIPSE_CIRCUMFERENCE,
                        bias_mm=-0.25,
                        agreement_mm=1.5,
                    )
                ],
            ),
        ],
        members=2,
    ),
)
HEIGHT, WIDTH = 9, 7
RUN_LENGTHS = ";4500ML142`0", "n11"
"""From pycocotools: a square of 4 x 4 pixels with a hole from row 2 and column 1, and the last pixel."""


def _object(number: int, spacing: pb.PixelSpacing | None, *, contours: bool, run_lengths: bool) -> pb.SegmentedObject:
    scale = spacing.row_mm if spacing else 1.0
    size = (4, 1)[number - 1]
    return pb.SegmentedObject(
        id=number,
        box=pb.Box(left=(1, 6)[number - 1], top=(2, 8)[number - 1], width=size, height=size),
        centroid_x=3.0,
        centroid_y=4.5,
        area_px=(15, 1)[number - 1],
        area=15 * scale**2,
        equivalent_diameter=4 * scale,
        major_axis=5 * scale,
        minor_axis=3 * scale,
        perimeter=16 * scale,
        circularity=0.5,
        mean_probability=0.75,
        touches_border=number == 2,
        contour=[1, 2, 5, 2, 5, 6, 1, 6] if contours else [],
        run_length=RUN_LENGTHS[number - 1] if run_lengths else "",
    )


def _result(image: pb.ImageToSegment, request: pb.SegmentRequest) -> pb.SegmentResult:
    spacing = image.pixel_spacing if image.HasField("pixel_spacing") else None
    if spacing:
        spacing.source = pb.PixelSpacing.SOURCE_REQUEST
    run_lengths = request.masks == pb.MASK_FORMAT_RUN_LENGTH
    objects = [_object(number, spacing, contours=request.contours, run_lengths=run_lengths) for number in (1, 2)]
    png = b"mask" if request.masks == pb.MASK_FORMAT_PNG else b""
    map_ = b"probability" if request.probability_maps else b""
    nucleus = pb.LabelResult(
        label="=nucleus/1",
        area_px=16,
        area_mm2=4.0 if spacing else None,
        area_share=0.25,
        count=2,
        count_interval=pb.Interval(low=1.75, high=2.5, coverage=0.9),
        objects=objects[: request.max_objects or None],
        mask_png=png,
        probability_png=map_,
    )
    interval = pb.Interval(low=18.5, high=21.5, coverage=0.95) if spacing else None
    cell = pb.LabelResult(
        label="cell",
        area_share=0.5,
        count=1,
        measures=[
            pb.MeasureResult(name="cell circumference", unit="mm" if spacing else "px", value=20.0, interval=interval)
        ],
        mask_png=png,
        probability_png=map_,
    )
    return pb.SegmentResult(
        height=HEIGHT,
        width=WIDTH,
        labels=[nucleus, cell],
        pixel_spacing=spacing,
        warnings=[
            image_pb.ImageWarning(
                kind=image_pb.ImageWarning.KIND_TILED, message=f"{len(image.image.encoded)} bytes in 2 tiles"
            )
        ],
        uncertainty=0.125,
        uncertainty_png=b"uncertainty" if request.uncertainty_maps else b"",
        overlay_png=b"overlay" if request.overlay else b"",
        frames=image.image.frame + 1,
        tiles=2,
    )


class _Catalog(ModelCatalogServicer):
    def ListModels(  # noqa: N802 - the contract's name
        self, _request: catalog_pb.ListModelsRequest, _context: grpc.ServicerContext
    ) -> catalog_pb.ListModelsResponse:
        cells = catalog_pb.ModelSummary(
            name="cells", version="1", task=catalog_pb.TASK_IMAGE_SEGMENTATION, ready=True, provider="cpu"
        )
        return catalog_pb.ListModelsResponse(models=[cells])

    def GetManifest(  # noqa: N802
        self, _request: catalog_pb.GetManifestRequest, _context: grpc.ServicerContext
    ) -> catalog_pb.GetManifestResponse:
        return catalog_pb.GetManifestResponse(model_version="1", manifest=MANIFEST, sha256="5ca1ab1e")


class _Segmentation(ImageSegmentationServicer):
    """Rejects files that start with "bad"."""

    def Segment(self, request: pb.SegmentRequest, context: grpc.ServicerContext) -> pb.SegmentResponse:  # noqa: N802
        if (status := self._status(request)).code:
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, status.message)
        return self._answer(request)

    def SegmentStream(  # noqa: N802
        self, request_iterator: Iterator[pb.SegmentRequest], _context: grpc.ServicerContext
    ) -> Iterator[pb.SegmentStreamResponse]:
        for request in request_iterator:
            if (status := self._status(request)).code:
                yield pb.SegmentStreamResponse(error=status)
            else:
                yield pb.SegmentStreamResponse(response=self._answer(request))

    def _status(self, request: pb.SegmentRequest) -> Status:
        violations = [
            BadRequest.FieldViolation(field=f"images[{index}].image.encoded", description="not a PNG file")
            for index, image in enumerate(request.images)
            if image.image.encoded.startswith(b"bad")
        ]
        if not violations:
            return Status()
        status = Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="not a PNG file")
        status.details.add().Pack(BadRequest(field_violations=violations))
        return status

    def _answer(self, request: pb.SegmentRequest) -> pb.SegmentResponse:
        results = [_result(image, request) for image in request.images]
        return pb.SegmentResponse(model_name="cells", model_version="1", results=results, request_id=request.request_id)


@pytest.fixture
def laboratory(serve: Serve) -> str:
    """The target of a server with the model `cells`."""

    def add_services(server: grpc.Server) -> None:
        add_ModelCatalogServicer_to_server(_Catalog(), server)
        add_ImageSegmentationServicer_to_server(_Segmentation(), server)

    return serve(add_services)

"""Notes that clients attach to resources, as pairs of strings."""

from lamplighter.api.models.base import Maybe, Model, Timestamp

#: What an annotation says: pairs of strings.
AnnotationValueData = dict[str, str]


class AnnotationObjectData(Model):
    """What is annotated."""

    type: str
    id: str


class AnnotationData(Model):
    """An annotation: what it says of which object."""

    object: AnnotationObjectData
    value: AnnotationValueData
    created_at: Maybe[Timestamp] = None
    updated_at: Maybe[Timestamp] = None


class AnnotationResponse(Model):
    """One annotation."""

    annotation: AnnotationData


class AnnotationsMapResponse(Model):
    """Annotations by the id of what they annotate; always there, if empty."""

    annotations: dict[str, AnnotationData]


class AnnotationCreateValueRequest(Model):
    """The annotation to attach."""

    annotation_value: Maybe[AnnotationValueData] = None

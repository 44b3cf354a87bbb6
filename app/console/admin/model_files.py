"""All models as one file, for administrators: out, and in again after a look at what it would change."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.catalog.exchange import MAX_IMPORT_CHARS, Import
from app.console.admin.model_forms import (
    CATALOGUE,
    MODELS,
    Part,
    document,
    effective_from,
    parts_of,
    reason,
    start_form,
)
from app.console.shell import HEADERS
from app.console.visitor import AdminVisitor, ConsoleRoute, Form, FormDep, Visitor, blank, go, once
from app.errors import InvalidParameter, MediagateError

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

IMPORT = f"{CATALOGUE}/import"


@router.get(f"{CATALOGUE}/export")
async def export(visitor: AdminVisitor) -> Response:
    text = await visitor.services.model_versions.export()
    disposition = {"content-disposition": 'attachment; filename="models.yaml"'}
    return Response(text, media_type="application/yaml", headers={**HEADERS, **disposition})


@router.get(IMPORT)
async def import_page(visitor: AdminVisitor) -> Response:
    return _import_page(visitor, blank(yaml=""))


def _import_page(visitor: Visitor, form: Form, *, status: int = 200) -> Response:
    return visitor.page("admin/model_import.html", status=status, nav=MODELS, form=form, most=MAX_IMPORT_CHARS)


@router.post(IMPORT)
async def preview_import(visitor: AdminVisitor, form: FormDep) -> Response:
    try:
        shown = start_form(yaml=_yaml(form))
        if form.is_on("withdraw_missing"):
            shown.fields["withdraw_missing"] = ["on"]
        return await _preview(visitor, shown)
    except MediagateError as error:
        return _import_page(visitor, form.refuse(visitor.request, error), status=error.status)


def _yaml(form: Form) -> str:
    """Return the file, or what stands in the text area. Raises: InvalidParameter."""
    file = form.files.get("file")
    try:
        text = file.decode("utf-8-sig") if file else document(form, "yaml")
    except UnicodeDecodeError:
        raise InvalidParameter("The file is no text in UTF-8.", param="yaml") from None
    if not text.strip() or "\x00" in text:
        raise InvalidParameter("Choose a file of models, or paste one.", param="yaml")
    form.fields["yaml"] = [text]
    return text


async def _preview(visitor: Visitor, form: Form, *, status: int = 200) -> Response:
    """Raises: InvalidParameter, with every complaint about the file."""
    found = await visitor.services.model_versions.preview(
        form.raw("yaml"), withdraw_missing=form.is_on("withdraw_missing")
    )
    return visitor.page(
        "admin/model_import_preview.html",
        status=status,
        nav=MODELS,
        found=found,
        parts=_parts(found),
        form=form,
    )


def _parts(found: Import) -> dict[str, list[Part]]:
    return {change.model: parts_of(change) if change.change == "changed" else [] for change in found.changes}


@router.post(f"{IMPORT}/apply")
async def apply_import(visitor: AdminVisitor, form: FormDep) -> Response:
    form.fields["yaml"] = [document(form, "yaml")]
    try:
        async with once(visitor, form, back=MODELS):
            why, moment = reason(form), effective_from(form)
            await visitor.services.model_versions.apply(
                form.raw("yaml"),
                note=why,
                actor=visitor.actor,
                effective_from=moment,
                withdraw_missing=form.is_on("withdraw_missing"),
            )
    except MediagateError as error:
        refused = form.refuse(visitor.request, error)
        if "yaml" in refused.errors:
            return _import_page(visitor, refused, status=error.status)
        return await _preview(visitor, refused, status=error.status)
    return go(visitor.request, MODELS, done="scheduled" if moment else "imported")

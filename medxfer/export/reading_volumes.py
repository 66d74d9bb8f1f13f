"""Volumes in plain MONAI: NIfTI, NRRD, MetaImage and folders of one DICOM series; whole or cut into slices."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..bundle.schema import DataSpec, SliceSpec
from ..data.formats.kinds import DICOM_SUFFIXES, VOLUME_SUFFIXES
from ..data.sampling import AXES
from .reading_part import DATA, IS_DICOM, IS_SHOWN, LOAD, ReadingPart, joined, padding, several_files

_NIFTI = [".hdr", ".nii", ".nii.gz"]
_UNEVEN = 0.05  # of a step; medxfer refuses what is farther off
_SLANT = 0.0017453  # sine of 0.1 degrees, medxfer's tolerance for sheared axes

LIMITS = (
    "NIfTI is read by nibabel: the sform is used where its code is set, else the qform, and slope and intercept "
    "are applied. NIfTI in colour stops the run.",
    "NRRD and MetaImage are read by ITK, and not checked as strictly as medxfer does: an axis without a place, or "
    "a header that names no space, is taken as ITK takes it, without a remark. Alpha is kept as a channel.",
    "DICOM is read by ITK from folders: all DICOM files that lie directly in a folder are one volume. Slices are "
    "sorted by position, slope and intercept of each slice are applied, padding is set to the lowest value. "
    "Several series, positions or sizes in a folder (localizers as well) stop the run; so do colour, a single "
    "slice, and a multi-frame file, whose frames ITK does not sort. What else medxfer checks (one patient, "
    "one study, copies of slices, a modality LUT) is not looked at.",
    "One volume a file or folder; an NRRD or MetaImage file of up to four components has so many channels.",
    "Spacing is used only where the steps resample to one (`Resample` in `configs/train.yaml`).",
)


def volumes(data: DataSpec) -> ReadingPart:
    """One volume a file or series folder."""
    gate = () if data.on_geometry == "warn" else ("@square",)
    part = ReadingPart(
        config={**_finding(), **_series(data), **_config(data), **padding()},
        stored=("@read", "@pad", "@arrange"),
        transforms=(*gate, "@finite", "@turn"),
        imports=("itk", "nibabel"),
        extras=("itk", "nibabel"),
        packages=("itk", "nibabel"),
        batch=1,
        files="NIfTI, NRRD and MetaImage file, and every folder of DICOM files as one volume,",
        row="a line a volume with its path below DIR",
        written="nifti",
        endings=tuple(VOLUME_SUFFIXES),
        limits=(*LIMITS, *_rules(data)),
    )
    return joined(part, several_files(data))


def slices(data: DataSpec) -> ReadingPart:
    """A picture for each slice of such volumes, as medxfer cuts them."""
    whole, cut = volumes(data), data.slices or SliceSpec()
    return dataclasses.replace(
        whole,
        config={**whole.config, **_cutting(cut)},
        transforms=(*whole.transforms, "@cut"),
        row=f"a line a slice with the volume's path below DIR and `#{cut.plane}-NUMBER`",
        written=None,
    )


def _finding() -> dict[str, Any]:
    files = (
        "$(lambda root, is_shown, is_dicom, suffixes: sorted({path.parent if is_dicom(path) else path "
        "for path in root.rglob('*') if is_shown(path) "
        "and (path.name.lower().endswith(suffixes) or is_dicom(path))}))"
        "(pathlib.Path(@dataset_dir), @is_shown, @is_dicom, tuple(@suffixes))"
    )
    return {
        "nifti_suffixes": _NIFTI,
        "suffixes": sorted(VOLUME_SUFFIXES),
        "dicom_suffixes": sorted(DICOM_SUFFIXES),
        "is_dicom": IS_DICOM,
        "is_shown": IS_SHOWN,
        "files": files,
        "data": DATA,
        "stop": "$lambda place, why: sys.exit(f'{place}: {why}')",
    }


def _series(data: DataSpec) -> dict[str, Any]:
    """A DICOM folder by ITK, with the checks that MONAI's own reader of folders leaves out."""
    found = (
        "$lambda folder: (lambda names: [names.SetUseSeriesDetails(True), names.AddSeriesRestriction('0008|0021'), "
        "names.SetDirectory(folder), [list(names.GetFileNames(one)) for one in names.GetSeriesUIDs()]][-1])"
        "(itk.GDCMSeriesFileNames.New())"
    )
    one = (
        "$lambda folder, found=@found, stop=@stop: (lambda series: series[0] if len(series) == 1 "
        "else stop(folder, f'{len(series)} DICOM series, one is accepted'))(found(folder))"
    )
    # float32 from the start: the first slice would decide for whole numbers where others have broken slopes
    stacked = (
        "$lambda files, checked=@checked: (lambda reader: [reader.SetFileNames(files), "
        "reader.SetForceOrthogonalDirection(False), reader.SetImageIO(itk.GDCMImageIO.New()), reader.Update(), "
        "checked(files, reader.GetOutput(), reader.GetMetaDataDictionaryArray())][-1])"
        "(itk.ImageSeriesReader[itk.Image[itk.F, 3]].New())"
    )
    even = (
        "$lambda image, key='ITK_non_uniform_sampling_deviation': (lambda tags: not tags.HasKey(key) "
        f"or tags[key] <= {_UNEVEN} * image.GetSpacing()[2])(image.GetMetaDataDictionary())"
    )
    uneven = "uneven steps, a slice is missing or doubled"
    if data.on_geometry == "resample":
        uneven += "; medxfer resamples it, MONAI does not"
    checks = (
        "stop(files[0], 'one slice is no volume') if len(files) == 1 "
        "and image.GetLargestPossibleRegion().GetSize()[2] == 1 "
        "else stop(files[0], 'a multi-frame file, whose frames ITK does not sort') if len(files) == 1 "
        "else stop(files[0], 'no grey image') if not tags[0]['0028|0004'].startswith('MONOCHROME') "
    )
    if data.on_geometry != "warn":
        checks += f"else stop(os.path.dirname(files[0]), '{uneven}') if not even(image) "
    return {
        "found": found,
        "one_series": one,
        "even": even,
        "checked": f"$lambda files, image, tags, stop=@stop, even=@even: {checks}"
        "else [image.SetMetaDataDictionary(tags[0]), image][-1]",
        "stacked": stacked,
        "series_reader": "$type('SeriesReader', (monai.data.ITKReader,), "
        "{'read': lambda self, folder, one=@one_series, stacked=@stacked: stacked(one(folder[0]))})()",
    }


def _config(data: DataSpec) -> dict[str, Any]:
    read = (
        "$lambda path, load=@load, nifti=@nifti_reader, series=@series_reader, other=@other_reader, "
        "suffixes=tuple(@nifti_suffixes): load(path, reader=series if os.path.isdir(path) "
        "else nifti if path.lower().endswith(suffixes) else other)"
    )
    # MONAI's own reader replaces an sform that pixdim contradicts
    nifti = (
        "$type('NiftiReader', (monai.data.NibabelReader,), {'read': lambda self, names: "
        "[setattr(self, 'filenames', names), nibabel.load(names[0])][-1]})()"
    )
    # x, y, z[, volumes or components] -> channels, x, y, z
    channels = (
        "$lambda x, stop=@stop: torch.from_numpy(numpy.reshape(x.numpy(), (*(*x.shape, 1, 1)[:3], -1), order='F'))"
        ".movedim(-1, 0) if 'spacing' not in x.meta or len(x.meta['spatial_shape']) == 3 "
        "else stop(x.meta['filename_or_obj'], 'a picture, a volume is accepted')"
    )
    chosen = (
        "$lambda x, values, volume=@volume, stop=@stop: values if len(values) == 1 or volume == 'channels' "
        "or (volume is None and len(values) <= 4 and x.ndim == len(x.meta.get('spacing', ())) + 1) "
        "else values[[volume]] if volume is not None "
        "else stop(x.meta['filename_or_obj'], f'{len(values)} volumes, --volume chooses one, from 0')"
    )
    unit = "$lambda x: {1: 1000.0, 3: 0.001}.get(int(x.meta.get('xyzt_units', 2)) & 7, 1.0)"
    arrange = (
        "$lambda x, channels=@channels, chosen=@chosen, unit=@unit: monai.data.MetaTensor(chosen(x, channels(x)), "
        "affine=torch.tensor([[unit(x)]] * 3 + [[1.0]], dtype=torch.float64) * x.affine, "
        "meta={'name': x.meta['filename_or_obj']})"
    )
    square = (
        "$lambda x, stop=@stop: (lambda u: x if float((u.T.mm(u) - torch.eye(3)).abs().max()) "
        f"<= {_SLANT} else stop(x.meta['name'], 'sheared axes (a tilted gantry)'))"
        "((lambda a: a / a.norm(dim=0))(x.affine[:3, :3].double()))"
    )
    bad = "torch.where(torch.isfinite(x), x, torch.zeros_like(x))"
    if data.on_nonfinite == "stop":
        bad = "x if bool(torch.isfinite(x).all()) else stop(x.meta['name'], 'NaN or infinite values')"
    turn = {
        "_target_": "Orientationd",
        "keys": "image",
        "axcodes": "RAS",
        "labels": [["L", "R"], ["P", "A"], ["I", "S"]],
    }
    return {
        "volume": "channels" if data.volume is None and len(data.images or ()) > 1 else data.volume,
        "nifti_reader": nifti,
        "other_reader": {"_target_": "ITKReader"},
        "load": LOAD,
        "read": {"_target_": "Lambdad", "keys": "image", "func": read},
        "channels": channels,
        "chosen": chosen,
        "unit": unit,
        "arrange": {"_target_": "Lambdad", "keys": "image", "func": arrange},
        "square": {"_target_": "Lambdad", "keys": "image", "func": square},
        "finite": {"_target_": "Lambdad", "keys": "image", "func": f"$lambda x, stop=@stop: {bad}"},
        "turn": turn,
    }


def _cutting(cut: SliceSpec) -> dict[str, Any]:
    """An item becomes one for each slice; rows from superior (axial: anterior) down, columns from the right."""
    axis = AXES[cut.plane]
    down, across = [one for one in range(3) if one != axis][::-1]
    near = f"[min(max(k + step, 0), x.shape[{axis + 1}] - 1) for step in range({-cut.context}, {cut.context + 1})]"
    picture = (
        f"torch.cat([x.select({axis + 1}, one).flip(1, 2).transpose(1, 2) for one in {near}]).contiguous()"
    )
    affine = f"torch.diag(torch.tensor([mm[{down}], mm[{across}], 1.0, 1.0], dtype=torch.float64))"
    # MONAI rewrites a number sign in a text: it comes as chr(35)
    text = (
        "$lambda item: (lambda x, mm: [{**item, "
        f"'file': f\"{{item['file']}}{{chr(35)}}{cut.plane}-{{k:03d}}\", "
        f"'image': monai.data.MetaTensor({picture}, affine={affine})}} "
        f"for k in range(0, x.shape[{axis + 1}], {cut.every})])"
        "(item['image'].as_tensor(), item['image'].affine[:3, :3].norm(dim=0).tolist())"
    )
    return {"cut": text}


def _rules(data: DataSpec) -> list[str]:
    """What the bundle says of reading and MONAI cannot do."""
    said = []
    for name in ("series", "select", "frames"):
        value = getattr(data, name)
        if value:
            value = dict(value) if name != "frames" else value
            said.append(
                f"`data.{name}: {value}` is medxfer's alone: here a folder must hold the one series or volume."
            )
    if data.on_geometry == "resample":
        said.append(
            "`data.on_geometry: resample` is medxfer's alone: tilted and uneven volumes stop the run here."
        )
    return said

"""The Faster R-CNN of bottom-up attention (Anderson et al., CVPR 2018), whose features this field trains on.

From a picture to its regions: `pixels` puts it on a canvas, `resnet` makes a feature map of that, `proposals` finds
boxes by the feature map and `anchors`, `roi_pool` and `heads` make a feature vector of each box, `selection` chooses
the boxes to keep. `faster_rcnn` is all of it, one program for each size of canvas; `weights` reads the files that
researchers hold.

Boxes are x1, y1, x2, y2 with the last pixel inside, so a box is x2 - x1 + 1 pixels wide, as in Caffe's detectors.
"""
